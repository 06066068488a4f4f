// Where the keys and values of a TOML file stand: table headers, and one statement after the other.

import type { KeyPath } from "./fault.ts";
import { pathKey, type Scanner } from "./scan.ts";

/** Scans the whole text; false: the way is lost, and the scanner stands where. */
export function scanToml(scanner: Scanner): boolean {
  /** Of each list of tables, how many there are so far. */
  const lengths = new Map<string, number>();
  let table: KeyPath = [];
  for (;;) {
    scanner.skipSpace();
    if (scanner.isAtEnd) return true;
    scanner.survey.statements.push(scanner.at);
    if (scanner.current === "[") {
      const header = scanHeader(scanner, lengths);
      if (header === undefined) return false;
      table = header;
    } else {
      const path = scanner.noteDottedKeys(table);
      if (path === undefined || !scanner.take("=")) return false;
      scanner.skipBlanks();
      if (!scanner.scanValue(path, 0)) return false;
    }
    if (!scanner.isLineDone()) return false;
  }
}

/** `[a.b]` or `[[a.b]]`: the path of the table that it opens. */
function scanHeader(scanner: Scanner, lengths: Map<string, number>): KeyPath | undefined {
  const start = scanner.at;
  const isList = scanner.take("[[");
  if (!isList) scanner.take("[");
  const keys = scanner.readDottedKeys();
  if (keys.length === 0 || !scanner.take(isList ? "]]" : "]")) return undefined;
  let path: KeyPath = [];
  for (const [index, { name, at }] of keys.entries()) {
    path = [...path, name];
    scanner.noteKey(path, at);
    const isNew = isList && index === keys.length - 1;
    const length = lengths.get(pathKey(path)) ?? 0;
    if (isNew) lengths.set(pathKey(path), length + 1);
    if (isNew || length > 0) path = [...path, isNew ? length : length - 1];
  }
  scanner.noteValue(path, start);
  return path;
}
