"""Content is held within both bounds from its arrival, and the budget is whole again at the end."""

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
    over = 0
    for pieces in requests:
        buffer = ReplayBuffer(budget, limit)
        buffers.append(buffer)
        arrived = reserved = 0
        for piece in pieces:
            arrived += piece
            fits = arrived <= limit and piece <= budget.free
            free = budget.free
            buffer.add(b"x" * piece)
            assert (buffer.held, sum(map(len, buffer.pieces))) == (fits, arrived)
            assert budget.free == free - piece * fits
            reserved += piece * fits
            if not fits:
                break
        over += arrived - reserved
        assert budget.free == total - sum(len(b"".join(each.pieces)) for each in buffers) + over
        assert budget.free >= 0
    for buffer in buffers:
        buffer.release()
        buffer.release()
    assert budget.free == total
