from ops.cli import common

app = common.app("x")
