//! Members drawn on chain, driven as people would: operators put their nodes there, an owner has a cluster drawn and registered. Skipped,
//! and says so, where anvil is not installed.

use fluence_bindings::anvil::{Anvil, AnvilConfig, find};
use fluence_bindings::{Chain, ChainParams, VerifierKey, deploy_all};
use fluence_client::{Keyring, Keystore, Passphrase, WorkFactor};
use fluence_types::shape::{CircuitId, StorageShape};
use rand::rngs::OsRng;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

const FLU: u128 = 1_000_000_000_000_000_000;
const NODES: usize = 5;

fn program(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fluence"));
    command.env_clear().current_dir(dir).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("FLUENCE_HOME", dir.join("home")).env("FLUENCE_PASSPHRASE_FILE", dir.join("pass"));
    command
}

fn private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn run(dir: &Path, args: &[&str]) -> Output {
    program(dir).args(args).arg("--json").stdin(Stdio::null()).output().unwrap()
}

fn json(dir: &Path, args: &[&str]) -> Value {
    let output = run(dir, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}"))
}

fn refused(dir: &Path, args: &[&str], code: i32, words: &str) {
    let output = run(dir, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    assert!(stderr.contains(words), "{args:?} says {stderr}, not {words:?}");
}

/// `fluence up`; its nodes end with it.
struct Up {
    process: Child,
    ready: Value,
    _events: BufReader<ChildStdout>,
}

impl Up {
    fn start(dir: &Path) -> Self {
        let mut process = program(dir)
            .args(["up", "--json", "--stop-with-stdin", "--dir", "up", "-n", &NODES.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut events = BufReader::new(process.stdout.take().unwrap());
        events.read_line(&mut line).unwrap();
        Self { process, ready: serde_json::from_str(&line).unwrap(), _events: events }
    }

    fn of(&self, i: usize, what: &str) -> &str {
        self.ready["nodes"][i][what].as_str().unwrap()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

#[test]
fn a_cluster_is_drawn_from_nodes_that_operators_offer_and_registered() {
    let contracts = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("contracts");
    let Some(binary) = find(&contracts) else {
        println!("SKIPPED cli-placement: anvil is not installed");
        return;
    };
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    private(&dir.join("pass"), "correct horse battery\n");
    let keyring = Keyring::generate(&mut OsRng);
    let owner = keyring.address();
    let passphrase = Passphrase::from_file(&dir.join("pass")).unwrap();
    Keystore::create(&dir.join("home/keystore.age"), &passphrase, keyring, WorkFactor::TEST).unwrap();

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let anvil = Anvil::spawn(&AnvilConfig::new(binary)).unwrap();
    let circuit = CircuitId::Storage(StorageShape::TINY);
    let vk = fluence_prover::Keys::load_or_setup(dir.join("keys"), circuit, |_| ()).unwrap().vk;
    let treasury = runtime.block_on(async {
        let deployer = anvil.connection(0).unwrap();
        let key = VerifierKey { circuit, key: vk.to_eip2537(), insecure_dev: true };
        let deployment = deploy_all(&deployer, &ChainParams::LOCAL, &[key]).await.unwrap();
        deployment.write(&dir.join("deployment.json")).unwrap();
        anvil.fund(&owner, 1_000_000_000_000_000_000).await.unwrap();
        Chain::open(deployer, deployment).await.unwrap()
    });
    let create = ["cluster", "create", "main", "--seats", "4", "--standbys", "1"];
    let chain = ["--rpc", anvil.rpc_url(), "--deployment", "deployment.json"];
    let drawn = |more: &[&'static str]| [&create[..], &chain[..], more].concat();
    let up = Up::start(dir);

    // Refusals, before anybody offers a node.
    refused(dir, &[&create[..], &["--node", up.of(0, "address")]].concat(), 2, "cannot be used with");
    refused(dir, &create, 2, "no chain is named");
    refused(dir, &[&create[..], &["--rpc", anvil.rpc_url()]].concat(), 2, "--rpc needs --deployment");
    refused(dir, &drawn(&[]), 1, "TooFewOperators");

    for i in 0..NODES {
        let config = dir.join(format!("operator-{i}.toml"));
        let key = dir.join(format!("operator-{i}.key"));
        private(&key, &hex::encode(anvil.keys()[i + 1].0));
        let own = std::fs::read_to_string(up.of(i, "config")).unwrap();
        let (rpc, deployment) = (anvil.rpc_url(), dir.join("deployment.json"));
        let table = format!(
            "\n[chain]\nrpc_url = {rpc:?}\ndeployment = {:?}\noperator_key = {:?}\n",
            deployment.to_str().unwrap(),
            key.to_str().unwrap()
        );
        std::fs::write(&config, own + &table).unwrap();
        let config = config.to_str().unwrap();
        if i == 0 {
            refused(dir, &["operator", "join", "--config", config], 2, "no address is given");
            refused(
                dir,
                &["operator", "join", "--config", config, "--address", up.of(1, "address")],
                2,
                "another node",
            );
            refused(
                dir,
                &["operator", "join", "--config", config, "--address", up.of(0, "address")],
                1,
                "CollateralMissing",
            );
        }
        runtime.block_on(async {
            let operator = anvil.connection(i + 1).unwrap().account().unwrap();
            treasury.transfer_flu(&operator, 1_000 * FLU).await.unwrap();
        });
        let joined =
            json(dir, &["operator", "join", "--config", config, "--address", up.of(i, "address"), "--deposit", "500"]);
        assert_eq!((&joined["announced"], &joined["node"]), (&Value::Bool(true), &up.ready["nodes"][i]["node"]));
        let acts = joined["done"].as_array().unwrap().len();
        assert_eq!(acts, if i == 0 { 2 } else { 4 }, "what was done before is left alone: {joined}");
    }

    // Asked for; the chain makes no block by itself, so the command gives up, and goes on when it is run again.
    refused(dir, &drawn(&["--timeout", "1"]), 1, "did not come");
    refused(dir, &["cluster", "create", "main", "--seats", "3", chain[0], chain[1], chain[2], chain[3]], 2, "already");
    runtime.block_on(anvil.mine(8)).unwrap();
    let made = json(dir, &drawn(&[]));
    let seats: Vec<&str> = made["members"].as_array().unwrap().iter().map(|m| m["node"].as_str().unwrap()).collect();
    let standbys = made["draw"]["standbys"].as_array().unwrap();
    let mut all: Vec<&str> =
        seats.iter().copied().chain(standbys.iter().map(|s| s["node"].as_str().unwrap())).collect();
    assert_eq!((seats.len(), all.len(), &made["draw"]["requests_of_owner"]), (4, 5, &Value::from(1)));
    all.sort_unstable();
    let mut there: Vec<&str> = (0..NODES).map(|i| up.of(i, "node")).collect();
    there.sort_unstable();
    assert_eq!(all, there);
    let order = runtime.block_on(async {
        let db = made["db"].as_str().unwrap().parse().unwrap();
        treasury.placement_preview(&owner, &db).await.unwrap().1
    });
    assert_eq!(order[..4].iter().map(ToString::to_string).collect::<Vec<_>>(), seats);
    refused(dir, &drawn(&[]), 2, "there is a database");

    // The chain learns of it once, and status says how far it is: nobody posts here.
    let registered = json(dir, &[&["cluster", "register"][..], &chain].concat());
    assert_eq!(registered["without_vote_key"], Value::Array(Vec::new()));
    refused(dir, &[&["cluster", "register"][..], &chain].concat(), 1, "AlreadyOpen");
    let status = json(dir, &[&["cluster", "status"][..], &chain].concat());
    assert!(status["chain"].is_null() && status["answering"] == 4, "{status}");

    let config = dir.join("operator-0.toml");
    let left = json(dir, &["operator", "leave", "--config", config.to_str().unwrap()]);
    assert_eq!(left["announced"], Value::Bool(false));
    refused(dir, &["operator", "leave", "--config", config.to_str().unwrap()], 1, "NotAnnounced");
}
