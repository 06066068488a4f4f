// The one executable: `daemon` is the daemon, every other word is the CLI's.

const [word, ...rest] = process.argv.slice(2);
const { main } = word === "daemon" ? await import("./daemon.ts") : await import("./cli.ts");
process.exitCode = await main(word === "daemon" ? rest : process.argv.slice(2));

export {};
