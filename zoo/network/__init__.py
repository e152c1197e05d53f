"""Files from hosts that are not trusted: one way to connect, to try again, and to write what came."""
