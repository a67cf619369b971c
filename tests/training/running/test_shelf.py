from concurrent.futures import ThreadPoolExecutor

from vlm_tune.training.running.shelf import Shelf


def test_there_is_no_more_on_it_than_is_allowed() -> None:
    shelf = Shelf()
    assert shelf.put("a", 1, num_bytes=6, limit=10) and shelf.put("a", 2, num_bytes=6, limit=10)
    assert not shelf.put("b", 1, num_bytes=6, limit=10)
    assert shelf.get("a") == 1 and shelf.get("b") is None and shelf.num_bytes == 6


def test_what_is_not_wanted_goes_only_where_room_is_needed() -> None:
    shelf = Shelf()
    for key in "abc":
        shelf.put(key, key, num_bytes=3, limit=10)
    assert shelf.put("d", "d", num_bytes=1, limit=10, wanted=lambda: {"d"})
    assert all(key in shelf for key in "abcd")
    assert shelf.put("e", "e", num_bytes=3, limit=10, wanted=lambda: {"b", "e"})
    assert [key in shelf for key in "abcde"] == [False, True, False, False, True]
    shelf.shrink(5, {"e"})
    assert "e" in shelf and shelf.num_bytes == 3
    shelf.shrink(2, {"e"})
    assert shelf.num_bytes == 0
    shelf.put("f", "f", num_bytes=0, limit=10)
    shelf.clear()
    assert "f" not in shelf


def test_a_name_has_one_shelf() -> None:
    kept: dict[str, object] = {}
    assert Shelf.of(kept, "photos") is Shelf.of(kept, "photos") is not Shelf.of(kept, "others")


def test_threads_may_share_it() -> None:
    shelf = Shelf()
    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(lambda key: shelf.put(key % 500, key, num_bytes=1, limit=400), range(4000)))
    assert shelf.num_bytes == 400 and sum(key in shelf for key in range(500)) == 400
    assert sum(kept) >= 400
