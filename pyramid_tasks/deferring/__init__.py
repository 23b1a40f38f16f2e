"""From a request to a call: the request methods, and what each call goes through."""
