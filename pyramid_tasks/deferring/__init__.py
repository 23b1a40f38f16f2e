"""From a request to a call: the request methods, and the preparation of a call."""
