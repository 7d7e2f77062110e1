"""The operator's side: the `nexus` command, the local cloud, the build. Never in a Lambda."""
