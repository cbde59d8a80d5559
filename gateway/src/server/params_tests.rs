//! Tests of parameters: each type in text and binary, what is refused, and what is not cast.

use super::*;
use crate::server::encode::Numeric;
use bytes::BytesMut;
use postgres_types::ToSql;

fn text(value: &str, declared: &Type, target: &DataType) -> ScalarValue {
    decode(Some(value.as_bytes()), false, declared, target).unwrap()
}
fn binary(value: &(dyn ToSql + Sync), declared: &Type, target: &DataType) -> ScalarValue {
    let mut raw = BytesMut::new();
    value.to_sql_checked(declared, &mut raw).unwrap();
    decode(Some(&raw), true, declared, target).unwrap()
}
fn code_of(raw: &[u8], binary: bool, declared: &Type) -> String {
    decode(Some(raw), binary, declared, &DataType::Null).unwrap_err().code.into_owned()
}

#[test]
fn numbers_come_the_same_in_text_and_binary() {
    for (declared, target, value) in [
        (Type::INT2, DataType::Int16, ScalarValue::Int16(Some(-7))),
        (Type::INT4, DataType::Int32, ScalarValue::Int32(Some(-7))),
        (Type::INT8, DataType::Int64, ScalarValue::Int64(Some(-7))),
        (Type::FLOAT4, DataType::Float32, ScalarValue::Float32(Some(-7.0))),
        (Type::FLOAT8, DataType::Float64, ScalarValue::Float64(Some(-7.0))),
    ] {
        assert_eq!(text(" -7 ", &declared, &target), value);
        let same: Box<dyn ToSql + Sync> = match declared {
            Type::INT2 => Box::new(-7_i16),
            Type::INT4 => Box::new(-7_i32),
            Type::INT8 => Box::new(-7_i64),
            Type::FLOAT4 => Box::new(-7_f32),
            _ => Box::new(-7_f64),
        };
        assert_eq!(binary(same.as_ref(), &declared, &target), value);
        // A parameter of a narrower type serves a wider column, and the other way round where it fits.
        assert_eq!(binary(same.as_ref(), &declared, &DataType::Int64), ScalarValue::Int64(Some(-7)));
    }
}

#[test]
fn a_value_that_would_lose_something_keeps_its_type() {
    assert_eq!(text("1.5", &Type::FLOAT8, &DataType::Int64), ScalarValue::Float64(Some(1.5)));
    assert_eq!(text("300", &Type::INT4, &DataType::Int8), ScalarValue::Int32(Some(300)));
    let price = DataType::Decimal128(10, 2);
    assert_eq!(text("12.345", &Type::NUMERIC, &price), ScalarValue::Decimal128(Some(12_345), 5, 3));
    assert_eq!(text("12.30", &Type::NUMERIC, &price), ScalarValue::Decimal128(Some(1230), 10, 2));
    assert_eq!(text("12", &Type::NUMERIC, &DataType::Int64), ScalarValue::Int64(Some(12)));
}

#[test]
fn numerics_of_any_size_come_back_from_binary() {
    for number in
        ["0", "-1", "0.5", "-12345.678", "0.0001", "100000000", "99999999999999999999999999999999999999", "7.0"]
    {
        let from_text = text(number, &Type::NUMERIC, &DataType::Null);
        let from_binary = binary(&Numeric(number.to_owned()), &Type::NUMERIC, &DataType::Null);
        assert_eq!(from_text, from_binary, "{number}");
    }
    assert_eq!(text("1.5e3", &Type::NUMERIC, &DataType::Null), ScalarValue::Decimal128(Some(1500), 4, 0));
    assert_eq!(text("-15e-3", &Type::NUMERIC, &DataType::Null), ScalarValue::Decimal128(Some(-15), 3, 3));
    assert_eq!(code_of(&[b'9'; 39], false, &Type::NUMERIC), "22003");
    assert_eq!(code_of(b"1e99", false, &Type::NUMERIC), "22003");
    for not in ["", "-", ".", "1.2.3", "x", "NaN", "1e", "0x1"] {
        assert_eq!(code_of(not.as_bytes(), false, &Type::NUMERIC), "22P02", "{not}");
    }
    // A digit above 9999, a sign that is none, and a count that lies.
    for raw in ["0001000000000000 2710", "0001000011110000 0001", "0002000000000000 0001", "00010000"] {
        let raw = hex::decode(raw.replace(' ', "")).unwrap();
        assert_eq!(code_of(&raw, true, &Type::NUMERIC), "22P03");
    }
}

#[test]
fn texts_bytes_and_uuids() {
    assert_eq!(text(" a ", &Type::VARCHAR, &DataType::Utf8), ScalarValue::Utf8(Some(" a ".to_owned())));
    assert_eq!(binary(&"a", &Type::TEXT, &DataType::Utf8View), ScalarValue::Utf8View(Some("a".to_owned())));
    assert_eq!(text(r"\x00ff", &Type::BYTEA, &DataType::Binary), ScalarValue::Binary(Some(vec![0, 255])));
    assert_eq!(text(r"a\\\001", &Type::BYTEA, &DataType::Binary), ScalarValue::Binary(Some(vec![b'a', b'\\', 1])));
    let uuid = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    let raw = hex::decode(uuid.replace('-', "")).unwrap();
    let value = ScalarValue::Utf8(Some(uuid.to_owned()));
    assert_eq!(decode(Some(&raw), true, &Type::UUID, &DataType::Utf8).unwrap(), value);
    assert_eq!(text(uuid, &Type::UUID, &DataType::Utf8), value);
    assert_eq!(code_of(b"\xff", false, &Type::TEXT), "22021");
    assert_eq!(code_of(b"a\0", true, &Type::TEXT), "22021");
    assert_eq!(code_of(br"\x0", false, &Type::BYTEA), "22P02");
    assert_eq!(code_of(br"\9", false, &Type::BYTEA), "22P02");
}

#[test]
fn dates_and_times_count_from_1970() {
    let (day, noon) = (ScalarValue::Date32(Some(19_737)), 1_705_320_000_000_000);
    let wall = ScalarValue::TimestampMicrosecond(Some(noon), None);
    let zoned = ScalarValue::TimestampMicrosecond(Some(noon), Some("UTC".into()));
    let (plain, utc) = (wall.data_type(), zoned.data_type());
    assert_eq!(text("2024-01-15", &Type::DATE, &DataType::Date32), day);
    assert_eq!(text("2024-01-15 +01", &Type::DATE, &DataType::Date32), day);
    assert_eq!(text("2024-01-15 12:00:00", &Type::TIMESTAMP, &plain), wall);
    assert_eq!(text("2024-01-15 12:00:00+05", &Type::TIMESTAMP, &plain), wall, "a zone means nothing");
    assert_eq!(text("2024-01-15 13:00:00+01", &Type::TIMESTAMPTZ, &utc), zoned);
    let days = 19_737 - EPOCH_DAYS;
    assert_eq!(decode(Some(&days.to_be_bytes()), true, &Type::DATE, &DataType::Date32).unwrap(), day);
    let micros = (noon - EPOCH_MICROS).to_be_bytes();
    assert_eq!(decode(Some(&micros), true, &Type::TIMESTAMP, &plain).unwrap(), wall);
    assert_eq!(decode(Some(&micros), true, &Type::TIMESTAMPTZ, &utc).unwrap(), zoned);
    // A column of another unit: cast where it fits.
    let millis = DataType::Timestamp(TimeUnit::Millisecond, None);
    assert_eq!(text("2024-01-15 12:00:00", &Type::TIMESTAMP, &millis).data_type(), millis);
    assert_eq!(text("2024-01-15 12:00:00.000001", &Type::TIMESTAMP, &millis).data_type(), plain);
    assert_eq!(code_of(b"2024-13-01", false, &Type::DATE), "22P02");
    assert_eq!(code_of(&i64::MAX.to_be_bytes(), true, &Type::TIMESTAMP), "22P03", "infinity");
}

#[test]
fn arrays_of_one_dimension() {
    let int8 = DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
    let values = [ScalarValue::Int64(Some(1)), ScalarValue::Int64(None)];
    let list = ScalarValue::List(ScalarValue::new_list_nullable(&values, &DataType::Int64));
    assert_eq!(text("{1,NULL}", &Type::INT8_ARRAY, &int8), list);
    assert_eq!(binary(&vec![Some(1_i64), None], &Type::INT8_ARRAY, &int8), list);
    assert_eq!(code_of(b"{x}", false, &Type::INT8_ARRAY), "22P02");
    // A count that lies does not make room for it.
    let lie = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 20, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1];
    assert_eq!(code_of(&lie, true, &Type::INT8_ARRAY), "22P03");
}

#[test]
fn null_has_the_planners_type_and_odd_bytes_are_refused() {
    assert_eq!(decode(None, true, &Type::INT4, &DataType::Int64).unwrap(), ScalarValue::Int64(None));
    assert_eq!(decode(None, false, &Type::TEXT, &DataType::Null).unwrap(), ScalarValue::Null);
    assert_eq!(text("t", &Type::BOOL, &DataType::Boolean), ScalarValue::Boolean(Some(true)));
    assert_eq!(code_of(b"maybe", false, &Type::BOOL), "22P02");
    for declared in
        [Type::BOOL, Type::INT2, Type::INT4, Type::INT8, Type::FLOAT8, Type::UUID, Type::INTERVAL, Type::DATE]
    {
        assert_eq!(code_of(b"abc", true, &declared), "22P03", "{declared}");
    }
    assert_eq!(code_of(b"1", false, &Type::POINT), "0A000");
}

#[test]
fn oids_of_parse() {
    assert_eq!(declared(0).unwrap(), None);
    assert_eq!(declared(705).unwrap(), None);
    assert_eq!(declared(20).unwrap(), Some(Type::INT8));
    assert_eq!(declared(4_000_000_000).unwrap_err().code, "42704");
    assert_eq!(natural(&Type::INT8), Some(DataType::Int64));
    assert_eq!(natural(&Type::NUMERIC), None);
}
