"""The texts of the top-level folder `grammar/`, wherever this installation keeps them.

A wheel carries the folder inside the package (`autmarg/_grammar`); an editable install, or a
checkout on the path, has it beside the package (`grammar/`). The place inside the package comes
first: beside an installed package lies `site-packages`, where a folder `grammar` is not ours.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_FOLDERS = (_PACKAGE / "_grammar", _PACKAGE.parent / "grammar")


def read(name: str) -> str:
    """Return the text of the grammar file `name`, say `"ir.lark"`."""
    for folder in _FOLDERS:
        if folder.is_dir():
            return (folder / name).read_text(encoding="utf-8")
    places = " or ".join(str(folder) for folder in _FOLDERS)
    raise FileNotFoundError(
        f"the grammar file {name!r} should be in {places}, and neither folder exists: "
        "this installation of autmarg is incomplete, install it again"
    )
