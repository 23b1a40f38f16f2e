"""The request methods and properties of an application, put on its requests."""

from __future__ import annotations

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
        self._methods: dict[str, Any] = {}
        self._descriptors: dict[str, Any] = {}

    def extend(self, request: Any, extensions: Any) -> None:
        """Extend a request.

        Args:
            extensions: The :class:`pyramid.interfaces.IRequestExtensions` of the
                application.
        """
        if (
            extensions.methods != self._methods
            or extensions.descriptors != self._descriptors
        ):
            self._classes.clear()
            self._methods = dict(extensions.methods)
            self._descriptors = dict(extensions.descriptors)
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
                request, {**self._descriptors, **self._methods}
            )
            self._classes[parent] = request.__class__
