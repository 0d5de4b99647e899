from mutirao.core.stop import clear_stop, request_stop, stop_reason


def test_a_request_is_seen_until_it_is_cleared(tmp_path):
    assert stop_reason(tmp_path) == ""
    request_stop(tmp_path, "energy budget used")
    assert stop_reason(tmp_path) == "energy budget used"
    clear_stop(tmp_path)
    assert stop_reason(tmp_path) == ""
