"""Certificates, which no attack can contradict, and the truth about small networks."""
