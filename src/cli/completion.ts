// `completion`: scripts for shells, and the words that they offer: from the table of commands, and
// from the daemon if it answers at once.

import type { Info } from "../protocol/info.ts";
import { DAEMON_USAGE } from "../daemon/options.ts";
import { escapeText } from "../log.ts";
import { ON_FULL } from "../model.ts";
import { RESTART_POLICIES, STOP_SIGNALS } from "../settings.ts";
import { COMMANDS, findCommand, NOUNS } from "./commands.ts";
import { Values } from "./parse.ts";
import { Session } from "./session.ts";
import {
  ASKED_BY_SCRIPTS,
  type Command,
  COMMON_OPTIONS,
  type Option,
  SHELLS,
  type ValueKind,
} from "./surface.ts";
import { CONDITIONS, FORMATS, SORT_COLUMNS } from "./values.ts";
import { stateWords } from "./words.ts";

/** Whoever presses Tab waits no longer for a daemon. */
const PATIENCE_MS = 500;

/** A word that may be typed next, and what it means. */
export type Offer = readonly [word: string, text: string];

/** What may be typed next. */
export interface Offers {
  readonly words: readonly Offer[];
  /** Or a path: the shell knows those. */
  readonly files: boolean;
}

export async function completion(session: Session): Promise<number> {
  const { terminal, values } = session;
  const shell = values.get("SHELL") as string;
  if (shell !== ASKED_BY_SCRIPTS) {
    await terminal.write(SCRIPTS[shell] as string);
    return 0;
  }
  const typed = values.all("WORD");
  const { words, files } = await offer(typed, () => live(session, typed));
  const offers = words.filter(
    ([word]) => escapeText(word) === word, // a line would become two offers
  );
  await session.answer({ words: offers.map(([word, text]) => ({ word, text })), files }, () =>
    offers.map(([word, text]) => `${word}\t${escapeText(text)}\n`).join(""),
  );
  return files || offers.length > 0 ? 0 : 3;
}

/** What the daemon knows whom the words name; undefined if it does not answer at once. */
async function live(session: Session, words: readonly string[]): Promise<Info | undefined> {
  const at = words.findLastIndex((word) => /^--socket(=|$)/.test(word));
  const named = words[at] === "--socket" ? words[at + 1] : words[at]?.slice("--socket=".length);
  const socket = named ?? session.values.get("--socket");
  const values = new Values(new Map(socket === undefined ? [] : [["--socket", [socket]]]));
  const deadlines = {
    ...session.terminal.deadlines,
    connectMs: PATIENCE_MS,
    answerMs: PATIENCE_MS,
  };
  let other: Session | undefined;
  try {
    other = new Session(values, { ...session.terminal, deadlines }, true);
    return await other.info();
  } catch {
    return undefined;
  } finally {
    other?.close();
  }
}

/** What may stand in place of the last of these words. */
export async function offer(
  words: readonly string[],
  ask: () => Promise<Info | undefined>,
): Promise<Offers> {
  const current = words.at(-1) ?? "";
  const before = words.slice(0, -1);
  const assigned = /^(--[a-z-]+)=/.exec(current);
  const name = assigned?.[1] ?? before.at(-1);
  const option = optionNamed(name);
  const given = before.filter((word, index) => isPlain(word, before[index - 1]));
  let offers = NOTHING;
  // Behind "--" stands what a program is started with, which may be a path.
  if (before.includes("--")) offers = FILES;
  else if (given[0] === "daemon") {
    if (isPathOfDaemon(name)) offers = FILES;
    else if (current.startsWith("-")) offers = only(await daemonOptions(before));
  } else if (option?.value !== undefined) {
    offers = await valuesOf(option.value.kind, ask, []);
    if (assigned !== null) {
      const withName = offers.words.map(([word, text]): Offer => [`${option.name}=${word}`, text]);
      offers = { ...offers, words: withName };
    }
  } else if (current.startsWith("-")) offers = only(optionsOf(commandIn(given), before));
  else offers = await nextWords(given, ask);
  return { ...offers, words: offers.words.filter(([word]) => word.startsWith(current)) };
}

const NOTHING: Offers = { words: [], files: false };
const FILES: Offers = { words: [], files: true };

function only(words: readonly Offer[]): Offers {
  return { words, files: false };
}

/** Neither an option nor the value of one. */
function isPlain(word: string, before: string | undefined): boolean {
  return !word.startsWith("-") && optionNamed(before)?.value === undefined;
}

function optionNamed(word: string | undefined): Option | undefined {
  const all = [...COMMON_OPTIONS, ...COMMANDS.flatMap(({ options }) => options)];
  return word === undefined
    ? undefined
    : all.find(({ name, short }) => name === word || short === word);
}

function commandIn([first = "", second = ""]: readonly string[]): Command | undefined {
  return findCommand(first) ?? findCommand(`${first} ${second}`);
}

function optionsOf(command: Command | undefined, before: readonly string[]): Offer[] {
  return [...(command?.options ?? []), ...COMMON_OPTIONS]
    .filter(({ name, isList }) => isList === true || !before.includes(name))
    .map(({ name, text }) => [name, text]);
}

/** From the page of its help, which says what each does. */
async function daemonOptions(before: readonly string[]): Promise<Offer[]> {
  const lines = [...DAEMON_USAGE.matchAll(/^ {2}(-.*?)\n? {2,}(\S.*)$/gm)];
  return lines
    .flatMap(([, names = "", text = ""]) =>
      [...names.matchAll(/--[a-z-]+/g)].map(([name]): Offer => [name, text]),
    )
    .filter(([name]) => !before.includes(name) || name === "--peer");
}

/** Whether an option of the daemon takes a path, as the page of its help says. */
function isPathOfDaemon(option: string | undefined): boolean {
  return (
    option !== undefined &&
    new RegExp(`^ {2}(?:-.*, )?${option} (?:PATH|FILE|DIR)`, "m").test(DAEMON_USAGE)
  );
}

async function nextWords(
  given: readonly string[],
  ask: () => Promise<Info | undefined>,
): Promise<Offers> {
  const [noun] = given;
  const daemon: Offer = ["daemon", "Start the orchestrator"];
  if (noun === "help")
    return only([...commandWords(given.slice(1)), ...(given.length === 1 ? [daemon] : [])]);
  const command = commandIn(given);
  if (command === undefined) {
    if (noun !== undefined) return only(commandWords(given));
    return only([...commandWords([]), daemon, ["help", "Print the page of a command"]]);
  }
  const done = given.slice(command.name.split(" ").length);
  const last = command.arguments.at(-1);
  const argument = command.arguments[done.length] ?? (last?.isList === true ? last : undefined);
  return argument === undefined ? NOTHING : valuesOf(argument.kind, ask, done);
}

/** First words, or those behind a noun. */
function commandWords(given: readonly string[]): Offer[] {
  const [noun] = given;
  if (given.length > 1) return [];
  if (noun !== undefined) {
    return COMMANDS.filter(({ name }) => name.startsWith(`${noun} `)).map(({ name, summary }) => [
      name.slice(noun.length + 1),
      summary,
    ]);
  }
  return [
    ...COMMANDS.filter(({ name }) => !name.includes(" ")).map(({ name, summary }): Offer => [
      name,
      summary,
    ]),
    ...Object.entries(NOUNS),
  ];
}

async function valuesOf(
  kind: ValueKind,
  ask: () => Promise<Info | undefined>,
  done: readonly string[],
): Promise<Offers> {
  const plain = (words: readonly string[]): Offers => only(words.map((word) => [word, ""]));
  switch (kind) {
    case "instance":
    case "target": {
      const { runtimes = {} } = (await ask()) ?? {};
      return only(
        Object.values(runtimes)
          .filter(({ name }) => name !== undefined && !done.includes(name))
          .map((runtime): Offer => [runtime.name, stateWords(runtime, Date.now())])
          .toSorted(([a], [b]) => (a < b ? -1 : 1)),
      );
    }
    case "type":
      return plain(await types(ask));
    case "priority":
      return plain(["high", "normal", "low"]);
    case "policy":
      return plain(ON_FULL);
    case "restart":
      return plain(RESTART_POLICIES);
    case "signal":
      return plain(STOP_SIGNALS);
    case "stream":
      return plain(["stdout", "stderr"]);
    case "condition":
      return plain([
        ...CONDITIONS,
        ...["", ...(await types(ask))].map((type) => `message:${type}`),
      ]);
    case "format":
      return plain(FORMATS);
    case "column":
      return plain(SORT_COLUMNS);
    case "shell":
      return plain(SHELLS);
    case "path":
    case "file":
    case "folder":
    case "address":
      return FILES;
    case "id":
    case "queue":
    case "name":
    case "variable":
    case "duration":
    case "text":
    case "time":
    case "count":
    case "pattern":
      return NOTHING;
  }
}

/** Types of which the daemon knows links. */
async function types(ask: () => Promise<Info | undefined>): Promise<string[]> {
  const { routes = [] } = (await ask()) ?? {};
  return [...new Set(routes.map(({ type_name }) => type_name))].toSorted();
}

// Bash breaks words at colons and equals signs, and wants only what stands behind the last of them.
// Exit code 0 without a word: a path may stand here, which is what each shell completes best.
const BASH = `# veecle-orchestrator: completion for bash; for this shell: source <(veecle-orchestrator completion bash)
_veecle_orchestrator() {
  local word current cut offers
  local -a words
  read -ra words <<<"\${COMP_LINE:0:COMP_POINT}"
  [[ \${COMP_LINE:COMP_POINT-1:1} == ' ' ]] && words+=('')
  current=\${words[\${#words[@]} - 1]}
  cut=\${current%"\${current##*[:=]}"}
  COMPREPLY=()
  offers=$("\${words[0]}" completion words -- "\${words[@]:1}" 2>/dev/null) || return
  if [[ -z $offers ]]; then
    compopt -o default
    return
  fi
  while IFS=$'\\t' read -r word _; do
    printf -v word %q "\${word#"$cut"}"
    COMPREPLY+=("$word")
  done <<<"$offers"
}
complete -F _veecle_orchestrator veecle-orchestrator
`;

const ZSH = `#compdef veecle-orchestrator
# veecle-orchestrator: completion for zsh; for this shell: source <(veecle-orchestrator completion zsh)
_veecle_orchestrator() {
  local all line text
  local -a offers
  all="$("\${words[1]}" completion words -- "\${(@)words[2,CURRENT]}" 2>/dev/null)" || return
  for line in "\${(@f)all}"; do
    [[ -n $line ]] || continue
    text="\${line#*$'\\t'}"
    offers+=("\${\${line%%$'\\t'*}//:/\\\\:}\${text:+:$text}")
  done
  if (( $#offers )); then
    _describe word offers
  else
    compset -P '--*='
    _files
  fi
}
compdef _veecle_orchestrator veecle-orchestrator
`;

const FISH = `# veecle-orchestrator: completion for fish; for this shell: veecle-orchestrator completion fish | source
function __veecle_orchestrator
  set -l before (commandline -opc)
  set -l current (commandline -ct)
  set -l offers ($before[1] completion words -- $before[2..-1] "$current" 2>/dev/null)
  or return
  if test (count $offers) -gt 0
    printf '%s\\n' $offers
  else
    set -l option (string match --regex '^--[a-z-]+=' -- "$current")
    for path in (__fish_complete_path (string replace --regex '^--[a-z-]+=' '' -- "$current"))
      echo -- "$option$path"
    end
  end
end
complete -c veecle-orchestrator --no-files -a '(__veecle_orchestrator)'
`;

const SCRIPTS: Readonly<Record<string, string>> = { bash: BASH, zsh: ZSH, fish: FISH };
