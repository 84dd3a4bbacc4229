"""Content is held for a replay within both bounds, and the budget is whole again at the end."""

from hypothesis import given
from hypothesis import strategies as st

from bits_auth_proxy.forward.replay import ReplayBudget, ReplayBuffer

sizes = st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=4), max_size=8)


@given(st.integers(0, 150), st.integers(0, 120), sizes)
def test_the_budget_is_never_overdrawn_and_whole_at_the_end(
    total: int, limit: int, requests: list[list[int]]
) -> None:
    budget = ReplayBudget(total)
    buffers = []
    for pieces in requests:
        buffer = ReplayBuffer(budget, limit=limit)
        buffers.append(buffer)
        sent = 0
        for piece in pieces:
            sent += piece
            if not buffer.held:
                break
            fits = sent <= limit and piece <= budget.free
            buffer.pieces.append(b"x" * piece)
            buffer.keep(sent)
            held = sum(map(len, buffer.pieces))
            assert (buffer.held, held) == (fits, sent if fits else 0)
        assert budget.free == total - sum(len(b"".join(each.pieces)) for each in buffers)
        assert budget.free >= 0
    for buffer in buffers:
        buffer.release()
        buffer.release()
    assert budget.free == total
