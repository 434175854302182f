"""The measures by their definitions: plain lists, plain loops. Imports nothing of the package."""

import math


def fisher_overlap(f1, f2):
    """1 - 1/2 Σ (√f̂1 - √f̂2)², both scaled to unit trace: the definition, not its shorter form."""
    trace1 = math.fsum(f1)
    trace2 = math.fsum(f2)
    if trace1 == 0 or trace2 == 0:
        return math.nan
    distance = 0.0
    for k in range(len(f1)):
        distance += (math.sqrt(f1[k] / trace1) - math.sqrt(f2[k] / trace2)) ** 2
    return 1 - distance / 2


def jaccard_index(mask1, mask2):
    """|A ∩ B| / |A ∪ B| by two sets of positions."""
    kept1 = set()
    kept2 = set()
    for k in range(len(mask1)):
        if mask1[k]:
            kept1.add(k)
        if mask2[k]:
            kept2.add(k)
    if not kept1 | kept2:
        return math.nan
    return len(kept1 & kept2) / len(kept1 | kept2)


def cosine_similarity(x, y):
    """x·y / (‖x‖ ‖y‖)."""
    product = 0.0
    for k in range(len(x)):
        product += x[k] * y[k]
    length_x = math.hypot(*x)
    length_y = math.hypot(*y)
    if length_x == 0 or length_y == 0:
        return math.nan
    return product / length_x / length_y


def task_similarity(x, y):
    return abs(cosine_similarity(x, y))


def gram(rows):
    """G_ij = Σ_k x_ik x_jk."""
    result = []
    for row_i in rows:
        line = []
        for row_j in rows:
            products = []
            for k in range(len(row_i)):
                products.append(row_i[k] * row_j[k])
            line.append(math.fsum(products))
        result.append(line)
    return result


def relative_distance(w_a, w_b, scales):
    """√(Σ s (w_a - w_b)²) / √(Σ s w_a² + Σ s w_b²), over lists of matrices with one scale each."""
    apart = 0.0
    size = 0.0
    for m in range(len(w_a)):
        for k in range(len(w_a[m])):
            apart += scales[m] * (w_a[m][k] - w_b[m][k]) ** 2
            size += scales[m] * (w_a[m][k] ** 2 + w_b[m][k] ** 2)
    if size == 0:
        return math.nan
    return math.sqrt(apart) / math.sqrt(size)


def by_group(measure, a, b, group_of):
    """The measure within each group of parameters: a dict group -> value, groups in order of appearance.

    ``a`` and ``b`` map parameter names to flat lists; ``group_of`` maps a parameter name to its group.
    """
    parts = {}
    for name in a:
        group = group_of(name)
        if group not in parts:
            parts[group] = ([], [])
        for value in a[name]:
            parts[group][0].append(value)
        for value in b[name]:
            parts[group][1].append(value)
    values = {}
    for group in parts:
        values[group] = measure(parts[group][0], parts[group][1])
    return values


def mean_of_defined(values):
    """The mean of the values that are not nan, and their number."""
    total = 0.0
    count = 0
    for value in values:
        if not math.isnan(value):
            total += value
            count += 1
    return (total / count if count else math.nan), count
