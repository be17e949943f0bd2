"""Rows that are kept: read back as they were, and only if the code and the options are the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from conformance import results
from conformance.results import Results
from conformance.row import COMPILED, Row, Step

ROW = Row("net", opset=13, status=COMPILED, steps=[Step(4, {"y": 0.5}, loads=True, changes=("a", "b"))])


def test_row_is_read_back_as_it_was(tmp_path: Path) -> None:
    Results(tmp_path / "rows.json", {"samples": 4}).keep(ROW)
    again = Results(tmp_path / "rows.json", {"samples": 4})
    assert again.known("net") == ROW
    assert again.known("other") is None


def test_rows_of_other_code_or_options_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Results(tmp_path / "rows.json", {"samples": 4}).keep(ROW)
    assert Results(tmp_path / "rows.json", {"samples": 8}).known("net") is None
    monkeypatch.setattr(results, "code_state", lambda: "another")
    assert Results(tmp_path / "rows.json", {"samples": 4}).known("net") is None


def test_nothing_is_kept_without_a_file() -> None:
    Results(None, {}).keep(ROW)


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"rows": [{}], "options": {}}'])
def test_file_of_something_else_is_not_overwritten(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="doesn't hold the rows of an earlier run"):
        Results(path, {})


def test_code_state_goes_with_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "statecheck"
    folder.mkdir()
    source = folder / "__init__.py"
    source.write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(results, "PACKAGES", ("statecheck",))
    before = results.code_state()
    assert results.code_state() == before
    source.write_text("x = 1")
    assert results.code_state() != before
