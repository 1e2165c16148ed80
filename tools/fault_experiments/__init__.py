"""Experiments of tools/fault_inject.py, a module for each thing that is put to the test."""
