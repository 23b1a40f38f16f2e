"""The interfaces of task derivers, modelled on Pyramid's view derivers."""

from zope.interface import Attribute, Interface

# Names and signatures follow zope.interface: no self, and docstrings as bodies.


class ITaskDeriver(Interface):
    """A callable that wraps a task, as :class:`pyramid.interfaces.IViewDeriver`."""

    def __call__(task, info):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204, N805
        """Return a callable to be used in place of ``task``.

        ``task`` is called as ``task(request, *args, **kwargs)``, and so is the result.
        ``info`` is an :class:`ITaskDeriverInfo`.
        """


class ITaskDeriverInfo(Interface):
    """The facts that a deriver gets about the task it wraps."""

    registry = Attribute("The registry of the application.")
    package = Attribute("The package that registered the task.")
    name = Attribute("The name of the task.")
    options = Attribute("The options that the task was registered with.")
    original_func = Attribute("The function itself, without any deriver.")


class ITaskDerivers(Interface):
    """The utility that holds the derivers of an application, in their order."""
