"""A network in the log: its parameters, and in the file of the log all of its layers."""

from torch import nn

from basicsr.utils.logger import get_logger


def log_network(network: nn.Module) -> None:
    """Log the name of a network and its number of parameters; the log's file gets its structure, too."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    get_logger().info("Network %s: %s parameters.", type(network).__name__, f"{parameters:,}")
    get_logger().debug("%s", network)
