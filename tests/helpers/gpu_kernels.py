"""Which operations of a graph a GPU would leave to the host.

TensorFlow's package has the kernels of GPUs too, and lists them without one.
"""

from collections.abc import Iterator

import tensorflow as tf
from tensorflow.python.framework import kernels


def on_the_host(graph: tf.Graph) -> set[tuple[str, ...]]:
    """(operation, its types, sorted) of all that have no kernel for a GPU, in the functions called too.

    What XLA compiles is left out: it is one kernel of the GPU.
    """
    definition = graph.as_graph_def()
    functions = {function.signature.name: function for function in definition.library.function}
    return {
        (node.op, *sorted({tf.as_dtype(type_).name for type_ in _types(node)}))
        for node in _nodes(definition.node, functions, set())
        if not any(_fits(node, kernel) for kernel in kernels.get_registered_kernels_for_op(node.op).kernel)
    }


def _nodes(nodes, functions, done) -> Iterator:
    for node in nodes:
        yield node
        for value in node.attr.values():
            for name in (value.func.name, *(function.name for function in value.list.func)):
                if not name or name in done:
                    continue
                done.add(name)
                if not functions[name].attr["_XlaMustCompile"].b:
                    yield from _nodes(functions[name].node_def, functions, done)


def _types(node) -> set[int]:
    return {type_ for value in node.attr.values() for type_ in (value.type, *value.list.type) if type_}


def _fits(node, kernel) -> bool:
    if kernel.device_type not in ("GPU", "DEFAULT"):
        return False
    return all(
        {node.attr[constraint.name].type, *node.attr[constraint.name].list.type} - {0}
        <= set(constraint.allowed_values.list.type)
        for constraint in kernel.constraint
    )
