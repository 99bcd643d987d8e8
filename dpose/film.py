def is_film(path):
    return False


def frames(path):
    raise NotImplementedError
