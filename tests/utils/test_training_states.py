"""Which states of a folder can be used, and what tells two recipes apart."""

from basicsr.utils.training_states import newest_usable, recipe_differences, states_in


def test_states_go_by_number(tmp_path):
    assert states_in(tmp_path / "absent") == []
    for name in ("9.state", "100.state", "20.state", "x.state", "200.pth", ".tmp-300.state"):
        (tmp_path / name).touch()
    assert [file.name for file in states_in(tmp_path)] == ["100.state", "20.state", "9.state"]


def test_a_folder_without_states_has_none(tmp_path):
    assert newest_usable(tmp_path, lambda state: state) == (None, {}, [])


def test_differences_are_told_option_by_option():
    before = {"scale": 4, "train": {"total_iter": 10, "scheduler": {"type": "A"}, "loss": None}, "datasets:train": {}}
    now = {**before, "train": {"total_iter": 20, "scheduler": {"type": "A"}, "loss": None}}
    assert recipe_differences(before, now) == (["'train:total_iter' was 10 and is now 20"], True)
    now = {**before, "train": {**before["train"], "loss": {"type": "L1"}}}
    assert recipe_differences(before, now) == (["'train:loss:type' was not given and is now 'L1'"], False)
    assert recipe_differences(before, before) == ([], False)
    long = {**before, "train": {**before["train"], "blocks": ["x" * 200]}}
    ((sentence,), _) = recipe_differences(before, long)
    assert len(sentence) < 150 and sentence.endswith("...")
