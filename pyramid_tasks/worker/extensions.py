"""The request methods and properties of an application, put on its requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyramid.util import InstancePropertyHelper
from zope.interface import implementedBy

# A request factory could make a class for each request.
_MAX_CLASSES = 16


class ExtendedClasses:
    """Gives requests what ``config.add_request_method`` has added.

    As :func:`pyramid.request.apply_request_extensions`, which makes a class anew for
    each request; that takes longer than all the rest. Here a class with the methods and
    properties is made once for each class that the request factory makes, and again
    when methods or properties are added later.
    """

    def __init__(self) -> None:
        # By the class that it extends.
        self._classes: dict[type, type] = {}
        self._extensions: Any = None

    def extend(self, request: Any, extensions: Any) -> None:
        """Extend a request.

        Args:
            extensions: The :class:`pyramid.interfaces.IRequestExtensions` of the
                application.
        """
        if extensions is not self._extensions:
            self._watch(extensions)
        parent = request.__class__
        try:
            request.__class__ = self._classes[parent]
        except KeyError:
            if len(self._classes) == _MAX_CLASSES:
                self._classes.clear()
            # Adapters are looked up as for the parent: this gives it a specification of
            # its own, and the next line hands that on.
            implementedBy(parent)
            InstancePropertyHelper.apply_properties(
                request, {**extensions.descriptors, **extensions.methods}
            )
            self._classes[parent] = request.__class__

    def _watch(self, extensions: Any) -> None:
        """Make the classes anew whenever there is something to add to them.

        To compare what there is with what there was would take longer the more there
        is, for each task.
        """
        forget = self._classes.clear
        extensions.descriptors = _Watched(extensions.descriptors, forget)
        extensions.methods = _Watched(extensions.methods, forget)
        self._extensions = extensions
        forget()


class _Watched(dict[str, Any]):
    """A dictionary of Pyramid's extensions, which tells when one is added."""

    def __init__(self, extensions: dict[str, Any], tell: Callable[[], None]) -> None:
        super().__init__(extensions)
        self._tell = tell

    def __setitem__(self, name: str, extension: Any) -> None:
        super().__setitem__(name, extension)
        self._tell()
