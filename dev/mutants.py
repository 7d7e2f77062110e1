"""Lists the mutants of a file, or of some of its functions: Cosmic Ray's operators, applied one at a time.

`dev.mutate` runs it in .venv-mutation.

Each line of the output is a JSON object: the line of the file (from 1), the text of that line before and after, and
the whole mutated source. Only the bodies of functions are mutated, without f-strings: constants and defaults are
settings, which a test could only repeat, and f-strings are messages.
"""

import ast
import json
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

# A comparison's bound is moved or the comparison inverted; an arithmetic operator is replaced by its opposite. Tests
# that notice these also notice the others of Cosmic Ray's 56 replacements of comparisons and 132 of operators.
OPERATORS = (
    *("AddNot", "ExceptionReplacer", "NumberReplacer", "ZeroIterationForLoop"),
    *("ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak"),
    *("ReplaceUnaryOperator_Delete_Not", "ReplaceUnaryOperator_Delete_USub", "ReplaceUnaryOperator_Delete_Invert"),
    *(
        f"ReplaceComparisonOperator_{change}"
        for change in (
            *("Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt"),
            *("Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is"),
        )
    ),
    *(
        f"ReplaceBinaryOperator_{change}"
        for change in (
            *("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "Mod_FloorDiv", "Pow_Mul"),
            *("BitAnd_BitOr", "BitOr_BitAnd", "BitXor_BitAnd", "LShift_RShift", "RShift_LShift"),
        )
    ),
)


def mutants(source: str, functions: Collection[str]) -> Iterator[dict[str, object]]:
    """Every mutant of a source, or of some of its functions and classes."""
    mutated_lines = lines_of(source, functions)
    messages = messages_of(source)
    nodes = list(ast_nodes(get_ast(source)))
    for name in OPERATORS:
        operator = get_operator(f"core/{name}")()
        places = [place for node in nodes for place in operator.mutation_positions(node)]
        for occurrence, ((line, column), _) in enumerate(places):
            mutated = mutate_code(source, operator, occurrence)
            if mutated is None:
                raise RuntimeError(f"{name} has {len(places)} places, and changes nothing at {occurrence}")
            if line in mutated_lines and not any(begin <= (line, column) < end for begin, end in messages):
                yield {**difference(source, mutated), "source": mutated}


def lines_of(source: str, functions: Collection[str]) -> set[int]:
    """The lines of the bodies of a module's functions and methods: of all, or of the functions and classes named."""
    top = {getattr(node, "name", ""): node for node in ast.parse(source).body}
    if unknown := set(functions) - set(top):
        raise ValueError(f"there is no {', '.join(sorted(unknown))}")
    chosen = [node for name, node in top.items() if not functions or name in functions]
    found = (node for each in chosen for node in ast.walk(each) if isinstance(node, ast.FunctionDef))
    return {line for node in found for line in range(node.body[0].lineno, (node.end_lineno or node.lineno) + 1)}


def messages_of(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where the f-strings begin and end: line and column, as Cosmic Ray counts them."""
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.JoinedStr)]
    return [((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)) for node in found]


def difference(source: str, mutated: str) -> dict[str, object]:
    """Where a mutated source differs first: the number of the line, and its text before and after."""
    both = zip(source.splitlines(), mutated.splitlines(), strict=False)
    for number, (before, after) in enumerate(both, 1):
        if before != after:
            return {"line": number, "before": before.strip(), "after": after.strip()}
    raise RuntimeError("a mutant that is equal to its source")


if __name__ == "__main__":
    for mutant in mutants(Path(sys.argv[1]).read_text(), sys.argv[2:]):
        print(json.dumps(mutant))
