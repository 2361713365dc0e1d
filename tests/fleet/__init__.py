"""Tests of the fleet, against real servers."""
