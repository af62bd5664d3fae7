"""The nouns of kitemesh: messages, subjects, errors and topology.

Everything here is a value or a pure function over values. Any package may import it; it imports only msgspec and the
standard library, and knows neither a loop, a clock nor a driver.
"""
