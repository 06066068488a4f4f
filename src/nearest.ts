// What somebody probably meant who typed a word that is not known.

/** The candidates that a slip of the fingers could have turned into `word`: none, or the nearest. */
export function nearest(word: string, candidates: readonly string[]): string[] {
  const lower = word.toLowerCase();
  const same = candidates.filter((candidate) => candidate.toLowerCase() === lower);
  if (same.length > 0 || word.length <= 2) return same;
  const limit = word.length <= 4 ? 1 : 2;
  const distances = candidates.map((candidate) => ({
    candidate,
    distance: candidate.startsWith(word) ? 1 : editDistance(word, candidate, limit),
  }));
  const best = Math.min(limit, ...distances.map(({ distance }) => distance));
  return distances.filter(({ distance }) => distance === best).map(({ candidate }) => candidate);
}

/**
 * Letters added, left out, replaced, or swapped with their neighbour; any number beyond `limit` if there
 * are more. Only what is that near to the diagonal is looked at, since a manifest may have thousands of
 * faults.
 */
function editDistance(from: string, to: string, limit: number): number {
  if (Math.abs(from.length - to.length) > limit) return limit + 1;
  const far = limit + 1;
  let before = new Array<number>(to.length + 2).fill(far);
  let last = before.map((_, column) => Math.min(column, far));
  let current = before.slice();
  let leastBefore = 0;
  for (let row = 1; row <= from.length; row++) {
    const first = Math.max(1, row - limit);
    const end = Math.min(to.length, row + limit);
    current[first - 1] = first === 1 ? Math.min(row, far) : far;
    let least = current[first - 1] as number;
    for (let column = first; column <= end; column++) {
      const same = from[row - 1] === to[column - 1];
      let distance = Math.min(
        (last[column] as number) + 1,
        (current[column - 1] as number) + 1,
        (last[column - 1] as number) + (same ? 0 : 1),
      );
      if (
        row > 1 &&
        column > 1 &&
        from[row - 1] === to[column - 2] &&
        from[row - 2] === to[column - 1]
      ) {
        distance = Math.min(distance, (before[column - 2] as number) + 1);
      }
      current[column] = distance;
      least = Math.min(least, distance);
    }
    current[end + 1] = far;
    if (least > limit && leastBefore > limit) return far; // swapped letters look back two rows
    leastBefore = least;
    [before, last, current] = [last, current, before];
  }
  return last[to.length] as number;
}
