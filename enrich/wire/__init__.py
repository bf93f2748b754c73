"""One attempt over HTTP: a request goes in, a `Reply` comes out, or a `Failure` that says what may have happened.

The only place that sends anything to the endpoint.
"""
