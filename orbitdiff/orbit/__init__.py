"""orbit"""
