"""What may be concluded: paired tests, intervals, corrections, calibration, slices."""
