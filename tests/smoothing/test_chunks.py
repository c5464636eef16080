"""The pieces of a pass make up the whole of it."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from caa_cli.smoothing.chunks import Piece, plan_pieces


def covered(pieces: list[Piece]) -> Counter[tuple[int, int]]:
    return Counter(
        (example, sample)
        for piece in pieces
        for example in range(piece.examples.start, piece.examples.stop)
        for sample in range(piece.samples.start, piece.samples.stop)
    )


@given(
    examples=st.integers(1, 6),
    samples=st.integers(1, 90),
    chunk=st.integers(1, 200),
    block=st.sampled_from([1, 8, 64]),
)
def test_every_sample_of_every_example_is_in_exactly_one_piece(examples: int, samples: int, chunk: int, block: int):
    pieces = list(plan_pieces(examples, samples, chunk, block))
    assert covered(pieces) == Counter((e, s) for e in range(examples) for s in range(samples))
    assert all(piece.size <= chunk for piece in pieces)


@given(examples=st.integers(1, 6), samples=st.integers(1, 90), chunk=st.integers(1, 200), smaller=st.integers(1, 50))
def test_cutting_a_piece_loses_nothing(examples: int, samples: int, chunk: int, smaller: int):
    for piece in plan_pieces(examples, samples, chunk, 8):
        parts = piece.cut(smaller, 8)
        if piece.num_examples == 1 or smaller >= piece.num_samples:
            assert all(part.size <= smaller for part in parts) or piece.size <= smaller
        assert covered(parts) == covered([piece])
