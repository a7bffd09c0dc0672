"""Options files of BasicSR and of 2DQuant: table.py says what each option is here, translation.py applies it to a run.

rows.py says what a row of the table is. May import the options' schema, yaml_loader and the registries.
"""

from basicsr.utils.options.upstream.translation import Translation

__all__ = ["Translation"]
