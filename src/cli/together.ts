// Several things at once, but not all of them: a daemon has only so many connections for one client.

/** Does the same with each, at most `most` at once; the results are in the order of the items. */
export async function together<Item, Result>(
  items: readonly Item[],
  most: number,
  act: (item: Item) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = [];
  const rest = items.entries(); // shared: each takes the next one
  const worker = async (): Promise<void> => {
    for (const [index, item] of rest) results[index] = await act(item);
  };
  await Promise.all(Array.from({ length: Math.min(most, items.length) }, worker));
  return results;
}
