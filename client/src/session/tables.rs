//! Tables of a database: made, found by name, their schemas fetched and checked.
//!
//! Source  DESIGN sections 3 and 5; `docs/protocol/wire.md`

use super::{ATTEMPTS, Database, Session, Table, TableHandle, lock, unexpected};
use crate::ask::Asked;
use crate::error::ClientError;
use crate::keyring::{self, KeyError, Table as OpenedTable};
use crate::keystore::KnownTable;
use crate::schema::TableSchema;
use crate::seal::TableKeys;
use crate::transport::Transport;
use fluence_crypto::roots;
use fluence_types::codec;
use fluence_types::op::{Op, OpRefusal};
use fluence_types::segment::PublicSchema;
use fluence_types::{DatabaseId, NodeId, ProjectionId, TableId};
use fluence_verifier::answer::CertifiedSnapshot;
use fluence_wire::{Request, Response};
use std::sync::Arc;

impl<T: Transport> Database<T> {
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> DatabaseId {
        self.id
    }

    /// The session.
    #[must_use]
    pub const fn session(&self) -> &Session<T> {
        &self.session
    }

    /// The latest certified root, with the entry of a table.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn snapshot(&self, table: &Table<T>) -> Result<CertifiedSnapshot, ClientError> {
        self.session.catalogue(&self.id, table.handle.projection).await
    }

    /// Creates an empty table.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_table(&self, schema: TableSchema) -> Result<Table<T>, ClientError> {
        for _ in 0..ATTEMPTS {
            let count = self.refresh_tables().await?;
            if self.find(schema.name()).is_some() {
                return Err(ClientError::TableExists(schema.name().to_owned()));
            }
            let (projection, table) = (ProjectionId(count), TableId(count));
            let keyring = &self.session.inner.keyring;
            let public = keyring.seal_schema(&self.id, &table, &schema, &mut self.session.fork_rng())?;
            let op = Op::DefineProjection { projection, table, schema: public.clone() };
            match self.session.submit(&self.id, op).await {
                // Another client took the number; count again.
                Err(ClientError::Op(OpRefusal::Projection(_))) => {}
                Err(error) => return Err(error),
                Ok(_) => {
                    let entry = self.session.catalogue(&self.id, projection).await?.entry().clone();
                    if entry.schema != roots::schema_hash(&public) || entry.table != table {
                        return Err(ClientError::UnknownTable(schema.name().to_owned()));
                    }
                    self.refresh_tables().await?;
                    return self.table(schema.name()).await;
                }
            }
        }
        Err(ClientError::Op(OpRefusal::Malformed("projections are being added faster than they can be counted".into())))
    }

    /// A table by name.
    ///
    /// # Errors
    /// [`ClientError::UnknownTable`], or what fetching the schemas says.
    pub async fn table(&self, name: &str) -> Result<Table<T>, ClientError> {
        if let Some(handle) = self.find(name) {
            return Ok(Table { session: self.session.clone(), handle });
        }
        self.refresh_tables().await?;
        let handle = self.find(name).ok_or_else(|| ClientError::UnknownTable(name.chars().take(128).collect()))?;
        Ok(Table { session: self.session.clone(), handle })
    }

    /// Schemas of all tables known here, in projection order.
    ///
    /// # Errors
    /// [`ClientError`] where they cannot be fetched or do not open.
    pub async fn tables(&self) -> Result<Vec<TableSchema>, ClientError> {
        self.refresh_tables().await?;
        let mut list: Vec<_> = lock(&self.session.inner.tables)
            .iter()
            .filter(|((db, _), _)| *db == self.id)
            .map(|(_, handle)| (handle.projection, handle.keys.table().schema.clone()))
            .collect();
        list.sort_by_key(|(projection, _)| *projection);
        Ok(list.into_iter().map(|(_, schema)| schema).collect())
    }

    fn find(&self, name: &str) -> Option<TableHandle> {
        if let Some(handle) = lock(&self.session.inner.tables).get(&(self.id, name.to_owned())) {
            return Some(handle.clone());
        }
        // The keystore's copy, opened: no node needs to be asked.
        let known = lock(&self.session.inner.keystore).state.databases.get(&self.id)?.tables.clone();
        for (table, opened) in self.opened(&known).ok()? {
            self.put(table.projection, table.table, opened);
        }
        lock(&self.session.inner.tables).get(&(self.id, name.to_owned())).cloned()
    }

    /// The tables that these keys open: of an owner, all. Where none opens the database is another's, and its tables are those with public
    /// columns, as everyone reads them.
    fn opened<'a>(&self, tables: &'a [KnownTable]) -> Result<Vec<(&'a KnownTable, OpenedTable)>, KeyError> {
        let (mut opened, mut sealed) = (Vec::with_capacity(tables.len()), None);
        for table in tables {
            match self.session.inner.keyring.open_schema(&self.id, &table.table, &table.public) {
                Ok(own) => opened.push((table, own)),
                Err(error @ KeyError::Sealed { .. }) => sealed = Some(error),
                Err(error) => return Err(error),
            }
        }
        let Some(error) = sealed else { return Ok(opened) };
        if opened.is_empty() {
            for table in tables {
                opened.extend(keyring::open_part(&table.table, &table.public)?.map(|open| (table, open)));
            }
            if !opened.is_empty() {
                return Ok(opened);
            }
        }
        Err(error)
    }

    fn put(&self, projection: ProjectionId, table: TableId, opened: OpenedTable) {
        let name = opened.schema.name().to_owned();
        let keys = TableKeys::new(Arc::clone(&self.session.inner.keyring), self.id, table, Arc::new(opened));
        lock(&self.session.inner.tables).insert((self.id, name), TableHandle { projection, keys });
    }

    /// Fetches all schemas, checks each against its certified catalogue entry, opens and remembers them. Returns their number.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn refresh_tables(&self) -> Result<u32, ClientError> {
        let known = self.known_tables();
        let request = Request::Schemas { db: self.id };
        let check = |asked: &Asked<'_>, response| match response {
            // Tables are never dropped.
            Response::Schemas(schemas) if schemas.len() < known.len() => {
                let what = format!("it knows {} tables of {}", schemas.len(), known.len());
                Err(ClientError::Behind { node: *asked.node, what })
            }
            Response::Schemas(schemas) => Ok(schemas),
            other => Err(unexpected(asked.node, "schemas", other)),
        };
        let mut members = self.session.trust(&self.id)?.committee.members.len();
        let tables = loop {
            let (node, schemas) = self.session.ask(&self.id, &request, check).await?;
            match self.checked_tables(node, &schemas, &known).await {
                Err(error @ ClientError::Protocol { .. }) => {
                    let response = codec::encode(&Response::Schemas(schemas));
                    self.session.blame(node, &error, codec::encode(&request), response);
                    self.session.prefer_another();
                    members = members.saturating_sub(1);
                    if members == 0 {
                        return Err(error);
                    }
                }
                other => break other?,
            }
        };
        for (table, opened) in self.opened(&tables)? {
            self.put(table.projection, table.table, opened);
        }
        let count = tables.len() as u32;
        if tables != known {
            let mut keystore = lock(&self.session.inner.keystore);
            if let Some(known) = keystore.state.databases.get_mut(&self.id) {
                known.tables = tables;
                keystore.save(&mut *lock(&self.session.inner.rng))?;
            }
        }
        Ok(count)
    }

    /// The tables of these schemas, those that are not known checked against the catalogue.
    async fn checked_tables(
        &self,
        node: NodeId,
        schemas: &[PublicSchema],
        known: &[KnownTable],
    ) -> Result<Vec<KnownTable>, ClientError> {
        let mut tables = Vec::with_capacity(schemas.len());
        for (i, public) in schemas.iter().enumerate() {
            let projection = ProjectionId(i as u32);
            if let Some(table) = known.iter().find(|t| t.projection == projection && t.public == *public) {
                tables.push(table.clone());
                continue;
            }
            let snapshot = self.session.catalogue(&self.id, projection).await?;
            let entry = snapshot.entry();
            if entry.schema != roots::schema_hash(public) {
                let what = format!("the schema of projection {projection} is not the one in the catalogue");
                return Err(ClientError::Protocol { node, what });
            }
            tables.push(KnownTable { projection, table: entry.table, public: public.clone() });
        }
        Ok(tables)
    }

    fn known_tables(&self) -> Vec<KnownTable> {
        let keystore = lock(&self.session.inner.keystore);
        keystore.state.databases.get(&self.id).map(|k| k.tables.clone()).unwrap_or_default()
    }
}
