"""One process that serves texts and pictures over HTTP: `janusflow serve`.

api (OpenAI's requests and answers) -> scheduler (one thread owns the model) -> runner (computes one tick)
"""
