"""What would make a CUDA program wait for the host, seen without CUDA."""

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class OnDevice(TorchDispatchMode):
    """Refuses what makes a CUDA program wait: tensors from the host: constants, indices, copies."""

    def __init__(self, *known):
        super().__init__()
        self.known = [x for x in tree_leaves(known) if isinstance(x, Tensor)]
        self.names = {id(x) for x in self.known}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        operands = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.dim()]
        out = function(*args, **(kwargs or {}))
        made = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        if any(id(x) not in self.names or x.device.type != "meta" for x in operands):
            raise RuntimeError(f"{function} is given a tensor from the host")
        self.known += made  # kept, so that no id is used twice
        self.names |= {id(x) for x in made}
        return out
