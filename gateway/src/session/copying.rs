//! COPY in a session: rows that go on coming, and rows that go out.

use super::SqlSession;
use super::outcome::{CopyFormat, Outcome, Tag};
use crate::error::{SqlError, SqlState};
use crate::pins::Block;
use crate::sql::catalog::TableDef;
use crate::sql::types::field_of;
use crate::sql::work::Work;
use crate::sql::{self, Statement, copy};
use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::sql::sqlparser::ast;
use futures::{StreamExt, TryStreamExt};
use std::sync::Arc;

/// A COPY that takes rows.
pub(super) struct CopyingIn {
    def: Arc<TableDef>,
    /// Places among the columns that are shown.
    columns: Vec<usize>,
    rows: copy::Rows,
    count: u64,
    /// The transaction, where the COPY began its own. It reads several times, and merges wait for it as for those of several statements.
    own: Option<(Arc<Work>, Block)>,
}

impl SqlSession {
    pub(super) async fn copy_out(
        &mut self,
        source: &ast::CopySource,
        options: copy::Options,
        work: &Arc<Work>,
        alone: bool,
    ) -> Result<Outcome, SqlError> {
        let statement = sql::parse(&copy::query_of(source)?)?.pop();
        let Some(Statement(ast::Statement::Query(query))) = statement else {
            return Err(SqlError::new(SqlState::SyntaxError, "COPY sends the rows of a table or a query"));
        };
        let Outcome::Rows { schema, stream, .. } = self.query(&query, work, alone).await? else {
            return Err(SqlError::new(SqlState::InternalError, "a query without rows"));
        };
        if options.format == CopyFormat::Binary {
            return Ok(Outcome::CopyRows { schema, stream });
        }
        let names: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
        let columns = names.len();
        let format = options.format;
        let head = options.header.then(|| {
            let mut out = Vec::new();
            copy::write_header(&options, &names.iter().map(String::as_str).collect::<Vec<_>>(), &mut out);
            Ok((bytes::Bytes::from(out), 0))
        });
        let rows = stream.map(move |batch| {
            let mut out = Vec::new();
            let ends = copy::write(&options, &batch?, &mut out)?;
            let (mut all, mut start) = (bytes::Bytes::from(out), 0);
            let rows = ends.into_iter().map(move |end| {
                let row = all.split_to(end - start);
                start = end;
                Ok((row, 1))
            });
            Ok::<_, SqlError>(futures::stream::iter(rows.collect::<Vec<_>>()))
        });
        let stream = futures::stream::iter(head).chain(rows.try_flatten()).boxed();
        Ok(Outcome::CopyOut { columns, format, stream })
    }

    pub(super) async fn copy_in(
        &mut self,
        source: &ast::CopySource,
        options: copy::Options,
        work: &Arc<Work>,
        alone: bool,
    ) -> Result<Outcome, SqlError> {
        let (table, names) = copy::table_of(source)?;
        let def = Arc::clone(self.shared.get().catalog.table(&table)?);
        let shown: Vec<String> = def.visible().map(|c| c.name.clone()).collect();
        let columns: Vec<usize> = if names.is_empty() {
            (0..shown.len()).collect()
        } else {
            let place = |n: &String| def.column(n).map(|c| shown.iter().position(|s| *s == c.name).unwrap_or_default());
            names.iter().map(place).collect::<Result<_, _>>()?
        };
        let (width, format) = (columns.len(), options.format);
        let all: Vec<_> = def.visible().map(field_of).collect();
        let fields = columns.iter().map(|place| all[*place].clone()).collect();
        let own = match alone {
            true => Some((Arc::clone(work), self.gateway.committer.pins.block().await)),
            false => None,
        };
        self.copy = Some(CopyingIn { def, columns, rows: copy::Rows::new(options, width), count: 0, own });
        Ok(Outcome::CopyIn { columns: width, format, fields })
    }

    /// Takes bytes of a COPY.
    ///
    /// # Errors
    /// [`SqlError`]; the COPY has ended then.
    pub async fn copy_data(&mut self, bytes: &[u8]) -> Result<(), SqlError> {
        let Some(mut copying) = self.copy.take() else {
            return Err(SqlError::new(SqlState::BadCopyFormat, "there is no COPY in progress"));
        };
        let done = match copying.rows.push(bytes) {
            Ok(Some(columns)) => self.copy_rows(&mut copying, columns).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => self.copy = Some(copying),
            Err(error) => {
                self.fail();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes rows of a binary COPY, as the columns that it is for.
    ///
    /// # Errors
    /// [`SqlError`]; the COPY has ended then.
    pub async fn copy_columns(&mut self, columns: Vec<ArrayRef>) -> Result<(), SqlError> {
        let Some(mut copying) = self.copy.take() else {
            return Err(SqlError::new(SqlState::BadCopyFormat, "there is no COPY in progress"));
        };
        match self.copy_rows(&mut copying, columns).await {
            Ok(()) => self.copy = Some(copying),
            Err(error) => {
                self.fail();
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) async fn copy_rows(&self, copying: &mut CopyingIn, columns: Vec<ArrayRef>) -> Result<(), SqlError> {
        let count = columns.first().map_or(0, |c| c.len());
        if count == 0 {
            return Ok(());
        }
        let cx = self.cx();
        let shown = cx.typed_rows(&copying.def, &copying.columns, columns).await?;
        let rows = cx.whole_rows(&copying.def, &shown).await?;
        cx.apply(&copying.def, Some(&rows), None).await?;
        copying.count += count as u64;
        Ok(())
    }

    /// Ends a COPY.
    ///
    /// # Errors
    /// [`SqlError`]: nothing of it is there then.
    pub async fn copy_done(&mut self) -> Result<Outcome, SqlError> {
        let Some(mut copying) = self.copy.take() else {
            return Err(SqlError::new(SqlState::BadCopyFormat, "there is no COPY in progress"));
        };
        let result = self.finish_copy(&mut copying).await;
        if result.is_err() {
            self.fail();
        }
        result.map(|()| Outcome::Done(Tag::Copy(copying.count)))
    }

    pub(super) async fn finish_copy(&mut self, copying: &mut CopyingIn) -> Result<(), SqlError> {
        let columns = copying.rows.finish()?;
        self.copy_rows(copying, columns).await?;
        if let Some((work, _)) = &copying.own {
            work.commit(&self.gateway.committer, &self.shared.get().catalog).await?;
        }
        Ok(())
    }

    /// Ends a COPY that the client gave up.
    pub async fn copy_fail(&mut self, why: &str) -> SqlError {
        self.copy = None;
        self.fail();
        SqlError::new(
            SqlState::QueryCanceled,
            format!("COPY from stdin failed: {}", why.chars().take(200).collect::<String>()),
        )
    }
}
