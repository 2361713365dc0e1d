"""Tests of the admin port's API."""
