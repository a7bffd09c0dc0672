"""The log of a run."""

from basicsr.utils.logger import close_logger, configure_logger, get_logger


def test_what_is_said_before_a_run_has_its_file_is_in_the_file(tmp_path):
    configure_logger(None, main_process=True)
    get_logger().info("Option 'a' is 'b' here.")
    configure_logger(tmp_path / "run.log", main_process=True)
    get_logger().info("The run begins.")
    close_logger()
    first, second = (tmp_path / "run.log").read_text(encoding="utf-8").splitlines()
    assert first.endswith("INFO: Option 'a' is 'b' here.") and second.endswith("INFO: The run begins.")


def test_a_second_run_of_a_process_has_nothing_of_the_first(tmp_path):
    for name in ("one", "two"):
        configure_logger(None, main_process=True)
        get_logger().info("of %s", name)
        configure_logger(tmp_path / f"{name}.log", main_process=True)
        close_logger()
    assert "of one" not in (tmp_path / "two.log").read_text(encoding="utf-8")
