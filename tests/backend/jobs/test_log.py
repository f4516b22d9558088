from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_backsplit.backend.jobs.log import find, line_end, read_piece


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.txt"


def test_a_missing_log_is_empty(path):
    assert read_piece(path).size == 0
    assert find(path, "x") is None


def test_the_newest_whole_lines_come_first_and_earlier_ones_before_them(path):
    path.write_bytes(b"".join(b"line %04d\n" % n for n in range(1000)))
    last = read_piece(path, most=95)
    assert last.text.splitlines()[0].startswith("line ")
    assert last.text.splitlines()[-1] == "line 0999"
    before = read_piece(path, last.begin, most=95)
    assert before.end == last.begin
    text = last.text
    piece = last
    while piece.begin:
        piece = read_piece(path, piece.begin, most=95)
        text = piece.text + text
    assert text == path.read_text()


def test_of_a_redrawn_line_what_stands_there_last_is_shown(path):
    path.write_bytes(b"10 %\r50 %\r100 %\nnext\r\n")
    assert read_piece(path).text == "100 %\nnext\n"


def test_bytes_that_are_no_text_do_no_harm(path):
    path.write_bytes(b"\xff\xfe\0 broken \x80\n")
    assert "broken" in read_piece(path).text


def test_words_are_found_whatever_their_case_and_from_there_round_again(path):
    path.write_bytes(b"Error one\nfine\nERROR two\n")
    first = find(path, "error")
    assert first == 0
    second = find(path, "error", after=1)
    assert path.read_bytes()[second:].startswith(b"ERROR two")
    assert find(path, "error", after=second + 1) == 0
    assert find(path, "absent") is None
    assert find(path, "") is None
    assert line_end(path, first) == 10


@given(st.integers(0, 70), st.integers(0, 80))
def test_words_across_two_chunks_are_found(tmp_path_factory, at, after):
    import napari_backsplit.backend.jobs.log as module

    path = tmp_path_factory.mktemp("log") / "log.txt"
    path.write_bytes(b"." * at + b"needle" + b"." * (80 - at))
    before, module._CHUNK_BYTES = module._CHUNK_BYTES, 16
    try:
        assert find(path, "Needle", after) == at
    finally:
        module._CHUNK_BYTES = before


def test_a_search_that_nobody_waits_for_ends(path):
    path.write_bytes(b"x" * 100)
    assert find(path, "y", cancelled=lambda: True) is None


def test_a_log_of_hundreds_of_megabytes_opens_at_once(path):
    with path.open("wb") as file:
        file.seek(300 << 20)  # a hole: nothing is written to the disk
        file.write(b"\nthe last line\n")
    begun = time.perf_counter()
    assert read_piece(path).text.endswith("the last line\n")
    assert time.perf_counter() - begun < 0.5
