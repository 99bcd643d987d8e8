"""Numbers that the paper reports in its Tables 1 to 3, to show beside measured ones.

Errors are in millimetres and in the order MVE, MPJPE, PA-MPJPE.
"""

TABLE_1 = {  # method: backbone, training data ("synthetic": BEDLAM and AGORA), errors on EMDB and on 3DPW
    "PARE": ("HRNet", "real", None, (97.9, 82.0, 50.9)),
    "CLIFF": ("HRNet", "real", None, (87.6, 73.9, 46.4)),
    "BEDLAM-HMR": ("HRNet", "synthetic", None, (93.1, 79.0, 47.6)),
    "BEDLAM-CLIFF": ("HRNet", "synthetic", (113.2, 97.1, 61.3), (85.0, 72.0, 46.6)),
    "HMR2.0": ("ViT", "synthetic", (106.6, 90.7, 51.3), (88.4, 72.2, 45.1)),
    "TokenHMR": ("ViT", "synthetic", (106.2, 89.6, 49.8), (85.7, 71.6, 44.0)),
    "D-PoSE": ("HRNet", "synthetic", (99.0, 85.5, 53.2), (81.4, 68.9, 43.6)),
}
TABLE_2 = {"HMR2.0": 672.0, "TokenHMR": 681.0, "D-PoSE": 81.2}  # parameters, millions
FEWER_PARAMETERS = {
    "TokenHMR": 83.8,
    "HMR2.0": 82.0,
}  # of D-PoSE, per cent: text of section 4.4
TABLE_3 = {  # data set: errors without depth, errors with depth
    "3DPW": ((81.3, 68.8, 44.3), (81.4, 68.9, 43.6)),
    "RICH": ((92.1, 80.6, 50.1), (87.8, 77.0, 47.8)),
    "EMDB": ((101.8, 87.6, 53.5), (99.0, 85.5, 53.2)),
}
