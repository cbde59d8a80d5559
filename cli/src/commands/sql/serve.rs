//! The servers, Postgres and HTTP: their user's password, the certificate, and how to reach them.
//!
//! Password  the first line of `--password-file`, or one that is made once and kept in the home's `pgpass`, readable by its owner only, in
//!           the form that psql and libpq read; for whatever port. It is never written again.
//! Plaintext only on loopback, unless it is asked for.

use crate::args::Sql;
use crate::commands::service;
use crate::error::{Context, Failure, Result};
use crate::home::{Home, private_file};
use crate::output::Out;
use crate::passphrase;
use fluence_gateway::Gateway;
use fluence_gateway::http::{self, HttpOptions};
use fluence_gateway::server::{ServerOptions, TlsFiles, Users, serve};
use rand::RngCore;
use rand::rngs::OsRng;
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;
use zeroize::Zeroizing;

pub(crate) async fn run(gateway: Arc<Gateway>, args: &Sql, home: &Home, out: &Out) -> Result<()> {
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => Some(TlsFiles { certificate: certificate.clone(), key: key.clone() }),
        _ => None,
    };
    let sql = listen(args.listen, tls.is_some(), args).await?;
    let web = listen(args.http, tls.is_some(), args).await?;
    let (password, passfile) = password(args, home)?;
    let users = || Users::scram().with_password(&args.user, &password);
    let stop = service::shutdown(args.stop_with_stdin);
    let mut said = json!({ "passfile": passfile });

    let mut sql_options = ServerOptions::new(users());
    sql_options.require_tls = tls.is_some() && !args.allow_plaintext;
    sql_options.tls = tls.clone();
    sql_options.connections_max = args.sessions_max.max(1);
    let mut web_options = HttpOptions::new(users());
    web_options.allow_plaintext = args.allow_plaintext;
    web_options.sessions_max = args.sessions_max.max(1);
    web_options.hosts = args.http_host.clone();
    let scheme = if tls.is_some() { "https" } else { "http" };
    web_options.tls = tls;
    drop(password);

    if let Some((_, bound)) = &sql {
        let pass = passfile.as_ref().map(|p| format!(" passfile={}", p.display())).unwrap_or_default();
        let mode = if sql_options.require_tls { " sslmode=require" } else { "" };
        let (host, port, user, db) = (bound.ip(), bound.port(), &args.user, &args.place.db);
        let psql = format!("psql 'host={host} port={port} user={user} dbname={db}{mode}{pass}'");
        let url = format!("postgresql://{user}@{bound}/{db}");
        out.line(format!("SQL at {}", out.bold(&url)));
        out.line(&psql);
        said["listening"] = json!(bound.to_string());
        said["url"] = json!(url);
        said["psql"] = json!(psql);
    }
    if let Some((_, bound)) = &web {
        let url = format!("{scheme}://{bound}");
        out.line(format!("HTTP at {}, its page at {url}/docs/", out.bold(&url)));
        said["http"] = json!(url);
    }
    out.json_line(&said);
    out.note(out.dim("ctrl-C ends the server"));
    let ends = || {
        let stop = stop.clone();
        async move { stop.cancelled().await }
    };
    // Where one server ends by itself, the other does not go on alone.
    let served_sql = async {
        match sql {
            Some((listener, _)) => serve(Arc::clone(&gateway), listener, sql_options, ends()).await,
            None => Ok(()),
        }
    };
    let served_web = async {
        match web {
            Some((listener, _)) => http::serve(Arc::clone(&gateway), listener, web_options, ends()).await,
            None => Ok(()),
        }
    };
    tokio::try_join!(served_sql, served_web).doing("the server ended")?;
    Ok(())
}

/// A listener at an address that may be used so, where one is wanted; and where it is.
async fn listen(address: Option<SocketAddr>, tls: bool, args: &Sql) -> Result<Option<(TcpListener, SocketAddr)>> {
    let Some(address) = address else { return Ok(None) };
    if !address.ip().is_loopback() && !tls && !args.allow_plaintext {
        return Err(Failure::usage(format!("{address} is not a loopback address, and there is no certificate"))
            .help("give --tls-cert and --tls-key, or take the risk with --allow-plaintext"));
    }
    let listener = TcpListener::bind(address).await.doing(format!("cannot listen at {address}"))?;
    let bound = listener.local_addr().doing("cannot tell the port")?;
    Ok(Some((listener, bound)))
}

/// The user's password, and the file in which clients find it, where it is ours.
fn password(args: &Sql, home: &Home) -> Result<(Zeroizing<String>, Option<PathBuf>)> {
    if let Some(path) = &args.password_file {
        return Ok((passphrase::first_line(path, "password")?, None));
    }
    let path = home.dir().join("pgpass");
    if !path.exists() {
        let mut secret = Zeroizing::new([0u8; 20]);
        OsRng.fill_bytes(&mut *secret);
        // `host:port:database:user:password`, for whichever host, port, database and user.
        let line = Zeroizing::new(format!("*:*:*:*:{}\n", hex::encode(*secret)));
        private_file(&path, line.as_bytes())?;
    }
    let line = passphrase::first_line(&path, "password")?;
    let last = line.rsplit_once(':').map(|(_, last)| Zeroizing::new(last.to_owned()));
    let password = last.ok_or_else(|| {
        Failure::failed(format!("{} is not a password file", path.display())).help("remove it; another is made")
    })?;
    Ok((password, Some(path)))
}
