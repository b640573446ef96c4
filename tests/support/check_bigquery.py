"""Has Google's own analyzer read statements for BigQuery: names, types and syntax. Run by the environment `dialects`.

Usage: check_bigquery.py < load.sql; prints the statements that it refuses, and why.
"""

from __future__ import annotations

import re
import sys

from zetasql.api import Analyzer, CatalogBuilder, TableBuilder
from zetasql.types import AnalyzerOptions, LanguageOptions, TypeKind, ZetaSQLBuiltinFunctionOptions

TYPES = {
    "int64": TypeKind.TYPE_INT64,
    "float64": TypeKind.TYPE_DOUBLE,
    "bool": TypeKind.TYPE_BOOL,
    "timestamp": TypeKind.TYPE_TIMESTAMP,
    "date": TypeKind.TYPE_DATE,
    "string": TypeKind.TYPE_STRING,
    "json": TypeKind.TYPE_JSON,
}
DEFINITION = re.compile(r"(?:create table if not exists|load data overwrite) `(\w+)` \((.*?)\n\)", re.DOTALL)


def main() -> None:
    """Print what is refused."""
    statements = [text.strip().replace("`braze`.", "") for text in sys.stdin.read().split(";\n\n") if text.strip()]
    catalog = CatalogBuilder("warehouse")
    for statement in statements:
        if defined := DEFINITION.match(statement):
            table = TableBuilder(defined[1])
            for column in defined[2].strip().split(",\n"):
                name, kind = column.split()
                # A list is only assigned to a list: any type stands for it.
                table.add_column(name.strip("`"), TYPES["json" if kind.startswith("array<") else kind])
            catalog.add_table(table.build())
    language = LanguageOptions.maximum_features()
    functions = ZetaSQLBuiltinFunctionOptions(language_options=language)
    analyzer = Analyzer(AnalyzerOptions(language_options=language), catalog.with_builtin_functions(functions).build())
    for statement in statements:
        try:
            analyzer.analyze_statement(statement)
        except Exception as error:  # noqa: BLE001 - each kind of refusal counts
            sys.stdout.write(f"{error}: {statement}\n")


if __name__ == "__main__":
    main()
