// Variables of the environment in a manifest's texts: `${NAME}`, `${NAME:-default}`, `$$` for one `$`.

import { didYouMean, quote } from "./fault.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

export interface Expanded {
  readonly text: string;
  /** Each with what was probably meant, if anything. */
  readonly faults: readonly VariableFault[];
}

interface VariableFault {
  readonly message: string;
  readonly hint?: string;
  /** It is well written, and nobody has set it. */
  readonly isUnset: boolean;
}

/** Puts values in the place of variables. A fault never holds a value: it may be secret. */
export function expandVariables(text: string, environment: Environment): Expanded {
  const faults: VariableFault[] = [];
  const expanded = text.replaceAll(
    /\$(\$|\{([^}]*)\}?|\w*)/g,
    (whole, kind?: string, body = "") => {
      if (kind === "$") return "$";
      const match = /^([A-Za-z_][A-Za-z0-9_]*)(?::-((?:[^$]|\$\$)*))?$/.exec(body);
      if (match === null || !whole.endsWith("}")) {
        faults.push({
          message: `${quote(whole)} is no variable`,
          hint: body.includes("$")
            ? "a default holds no other variable; write $$ for a dollar sign"
            : "write ${NAME}, ${NAME:-default}, or $$ for a dollar sign",
          isUnset: false,
        });
        return "";
      }
      const [, name, otherwise] = match as unknown as [string, string, string | undefined];
      const value = Object.hasOwn(environment, name) ? environment[name] : undefined;
      if (otherwise !== undefined && !value) return otherwise.replaceAll("$$", "$");
      if (value !== undefined) return value;
      const near = didYouMean(name, Object.keys(environment));
      faults.push({
        message: `the variable ${name} is not set`,
        hint: near ?? `set it, or write \${${name}:-default}`,
        isUnset: true,
      });
      return "";
    },
  );
  return { text: expanded, faults };
}

/** One line of a file of variables that cannot be used. */
export interface LineFault {
  readonly line: number;
  readonly message: string;
}

/**
 * Reads a file of variables: `NAME=value` on each line, `#` before a comment, and quotes where blanks
 * at the ends, a `\n` or a `#` are meant. Nothing is put in the place of a `$`.
 */
export function parseEnvironmentFile(text: string): {
  readonly variables: ReadonlyMap<string, { readonly value: string; readonly line: number }>;
  readonly faults: readonly LineFault[];
} {
  const variables = new Map<string, { value: string; line: number }>();
  const faults: LineFault[] = [];
  for (const [index, whole] of text
    .replace(/^\uFEFF/, "")
    .split(/\r?\n/)
    .entries()) {
    const entry = whole.trim();
    if (entry === "" || entry.startsWith("#")) continue;
    const line = index + 1;
    const match = /^(?:export\s+)?([^\s=]+)\s*=\s*(.*)$/s.exec(entry);
    const value = match === null ? undefined : unquote(match[2] as string);
    if (match === null) faults.push({ line, message: "it is not NAME=value" });
    else if (value === undefined) faults.push({ line, message: "its quotes do not match" });
    else variables.set(match[1] as string, { value, line });
  }
  return { variables, faults };
}

const ESCAPES: Readonly<Record<string, string>> = { n: "\n", r: "\r", t: "\t" };

function unquote(text: string): string | undefined {
  const quote = text[0];
  if (quote !== '"' && quote !== "'") return text.replace(/\s#.*$/s, "").trimEnd();
  const quoted = quote === "'" ? /^'([^']*)'\s*(#.*)?$/ : /^"((?:[^"\\]|\\.)*)"\s*(#.*)?$/;
  const inner = quoted.exec(text)?.[1];
  return quote === "'"
    ? inner
    : inner?.replaceAll(/\\(.)/g, (_, character: string) => ESCAPES[character] ?? character);
}
