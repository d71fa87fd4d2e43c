"""Helpers for rclpy."""
