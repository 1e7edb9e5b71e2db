"""Reads of usage: what tenants and commands ask for."""
