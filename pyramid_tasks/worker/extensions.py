"""The request methods and properties of an application, put on its requests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pyramid.request import apply_request_extensions
from zope.interface import implementedBy

# A request factory could make a class for each request.
_MAX_CLASSES = 16


class ExtendedClasses:
    """Gives requests the extensions that ``config.add_request_method`` has added.

    :func:`pyramid.request.apply_request_extensions` makes a class for each request,
    which takes longer than the rest of a request. This class calls that function once
    for each class of requests, and again when an extension has been added.
    """

    def __init__(self) -> None:
        # The extended classes, by the classes that they extend.
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
            # The extended class inherits this specification. Without one, each class
            # would leave a trace in the look-up of adapters.
            implementedBy(parent)
            # Pyramid would put methods on the request itself, one by one.
            both = {**extensions.descriptors, **extensions.methods}
            apply_request_extensions(
                request, SimpleNamespace(methods={}, descriptors=both)
            )
            self._classes[parent] = request.__class__

    def _watch(self, extensions: Any) -> None:
        """Forget the classes whenever an extension is added."""
        # To compare the extensions for each task would take longer the more there are.
        for name in "descriptors", "methods":
            setattr(extensions, name, _Watched(getattr(extensions, name), self))
        self._extensions = extensions
        self.forget()

    def forget(self) -> None:
        """Make the classes again when they are needed."""
        self._classes.clear()


class _Watched(dict[str, Any]):
    """Some extensions of Pyramid."""

    def __init__(self, extensions: dict[str, Any], watcher: ExtendedClasses) -> None:
        super().__init__(extensions)
        self._watcher = watcher

    def __setitem__(self, name: str, extension: Any) -> None:
        super().__setitem__(name, extension)
        self._watcher.forget()
