"""State dicts in the layouts of other implementations, made from our networks."""

import torch


def edsr_pytorch_layout(network):
    """Return the state dict of an EDSR as EDSR-PyTorch would save it."""
    mean, blocks = network.mean.flatten() * network.img_range, len(network.body)
    identity = torch.eye(len(mean)).view(len(mean), len(mean), 1, 1)
    state_dict = {
        "sub_mean.weight": identity,
        "sub_mean.bias": -mean,
        "add_mean.weight": identity,
        "add_mean.bias": mean,
    }
    names = {"conv_first": "head.0", "conv_after_body": f"body.{blocks}", "upsample": "tail.0", "conv_last": "tail.1"}
    for key, value in network.state_dict().items():
        first, _, rest = key.partition(".")
        if first == "body":
            rest = rest.replace("conv1", "body.0").replace("conv2", "body.2")
        state_dict[f"{names.get(first, first)}.{rest}"] = value
    return state_dict
