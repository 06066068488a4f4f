// What somebody probably meant who typed a word that is not known.

/** The candidates that a slip of the fingers could have turned into `word`: none, or the nearest. */
export function nearest(word: string, candidates: readonly string[]): string[] {
  const same = candidates.filter((candidate) => candidate.toLowerCase() === word.toLowerCase());
  if (same.length > 0 || word.length <= 2) return same;
  const limit = word.length <= 4 ? 1 : 2;
  const distances = candidates.map((candidate) => ({
    candidate,
    distance: candidate.startsWith(word) ? 1 : editDistance(word, candidate),
  }));
  const best = Math.min(limit, ...distances.map(({ distance }) => distance));
  return distances.filter(({ distance }) => distance === best).map(({ candidate }) => candidate);
}

/** Letters added, left out, replaced, or swapped with their neighbour. */
function editDistance(from: string, to: string): number {
  let before: number[] = [];
  let last = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (let row = 1; row <= from.length; row++) {
    const current = [row];
    for (let column = 1; column <= to.length; column++) {
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
      current.push(distance);
    }
    before = last;
    last = current;
  }
  return last[to.length] as number;
}
