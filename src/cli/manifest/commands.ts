// The words that work on a manifest: what can be typed.

import { type Argument, type Command, type Option, QUIET } from "../surface.ts";

const FILE: Argument = {
  name: "FILE",
  kind: "file",
  isOptional: true,
  text: "the manifest, or its folder; without it, orchestrator.toml, .yaml, .json or .ts here",
};

const ADOPT: Option = {
  name: "--adopt",
  text: "take over what is there and belongs to nobody or to another manifest",
};

const YES: Option = { name: "--yes", short: "-y", text: "do not ask" };

const TIMEOUT: Option = {
  name: "--timeout",
  value: { name: "TIME", kind: "duration" },
  text: "how long each instance may take to be ready, or to end (30s)",
};

export const MANIFEST_COMMANDS: readonly Command[] = [
  {
    name: "up",
    summary: "Make instances and links as a manifest wants them, and start them",
    details:
      "Shows the plan, does it, and waits until everything is ready. On a terminal it asks before\n" +
      "something ends that runs. A second up has nothing to do. After a failure it tells what was done\n" +
      "and what was not; type it again to go on from there. Exit code 3 if something cannot become\n" +
      "ready, 6 if it is not in time.",
    arguments: [FILE],
    options: [
      YES,
      ADOPT,
      TIMEOUT,
      { name: "--no-wait", text: "do not wait until it is ready" },
      QUIET,
    ],
    examples: ["up", "up bench.toml --timeout 10s", "up -y"],
    json:
      '`{"file","owner","same","instances":[{"name","change","differences":[{"key","text"}],"restart"}, …],' +
      '"links":[{"name","change","differences"}, …],"steps":[{"do","name","outcome","error"}, …]}`; ' +
      "`change` is add, change, remove, same or conflict, `outcome` is done, failed or open, " +
      "`error` is null or a text",
  },
  {
    name: "plan",
    summary: "Show what up would do, and do nothing",
    arguments: [FILE],
    options: [{ name: "--check", text: "exit code 3 if there is something to do" }, ADOPT],
    examples: ["plan", "plan bench.toml --check"],
    json: "as `up`, every `outcome` is open",
  },
  {
    name: "down",
    summary: "Stop and remove what belongs to a manifest, and nothing else",
    details:
      "What runs is listed, and on a terminal you are asked. Away from one, it needs -y if something\n" +
      "runs. Instances are stopped in the reverse of the order in which up starts them. Variables and\n" +
      "files of variables that up needs may be gone, but for those in the name of the manifest.",
    arguments: [FILE],
    options: [YES, TIMEOUT, QUIET],
    examples: ["down", "down bench.toml -y"],
    json: "as `up`",
  },
  {
    name: "export",
    summary: "Print a manifest of everything that is there",
    details:
      "With the values of variables, which may be secret. What it prints gives an empty plan.\n" +
      "The order of starting and what makes an instance ready are not known to the daemon.",
    arguments: [],
    options: [
      {
        name: "--format",
        value: { name: "FORMAT", kind: "format" },
        text: "toml (the default), yaml or json",
      },
    ],
    examples: ["export > orchestrator.toml", "export --format yaml"],
    json: "the manifest itself",
  },
];
