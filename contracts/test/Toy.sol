// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @title A Groth16 key whose secrets we know, so that tests can prove any statement about it.
/// @notice Whoever knows alpha, beta, gamma, delta and the IC logarithms makes a valid triple for any inputs:
/// choose A = a G1 and B = b G2, and C = (a b - alpha beta - gamma x) / delta G1 with x = ic_0 + sum input_i ic_{i+1}.
/// It is exactly what an insecure development key allows. The verifier under test is the real one, over the real precompiles.
library Toy {
    uint256 internal constant R = 0x73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001;
    uint256 private constant ALPHA = 0x1234567;
    uint256 private constant BETA = 0x89abcdef;
    uint256 private constant GAMMA = 0x1357;
    uint256 private constant DELTA = 0x2468ace;

    function ic(uint256 i) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode("ic", i))) % R;
    }

    /// @notice A key for `inputs` public inputs.
    function key(uint256 inputs) internal view returns (bytes memory k) {
        k = bytes.concat(g1(ALPHA), g2(BETA), g2(GAMMA), g2(DELTA));
        for (uint256 i = 0; i <= inputs; ++i) {
            k = bytes.concat(k, g1(ic(i)));
        }
    }

    /// @notice A proof of `inputs`; `salt` picks one of the many.
    function prove(uint256[] memory inputs, uint256 salt) internal view returns (bytes memory) {
        uint256 x = ic(0);
        for (uint256 i = 0; i < inputs.length; ++i) {
            x = addmod(x, mulmod(inputs[i], ic(i + 1), R), R);
        }
        uint256 a = uint256(keccak256(abi.encode("a", salt))) % R;
        uint256 b = uint256(keccak256(abi.encode("b", salt))) % R;
        uint256 c = addmod(mulmod(a, b, R), R - mulmod(ALPHA, BETA, R), R);
        c = addmod(c, R - mulmod(GAMMA, x, R), R);
        return bytes.concat(g1(a), g2(b), g1(mulmod(c, inverse(DELTA), R)));
    }

    function inverse(uint256 v) internal view returns (uint256 out) {
        (bool good, bytes memory o) = address(5).staticcall(abi.encode(32, 32, 32, v, R - 2, R));
        require(good, "modexp");
        return abi.decode(o, (uint256));
    }

    function g1(uint256 k) internal view returns (bytes memory) {
        return _msm(address(0x0c), G1, k);
    }

    function g2(uint256 k) internal view returns (bytes memory) {
        return _msm(address(0x0e), G2, k);
    }

    function _msm(address precompile, bytes memory point, uint256 k) private view returns (bytes memory) {
        (bool good, bytes memory out) = precompile.staticcall(bytes.concat(point, bytes32(k)));
        require(good && out.length == point.length, "msm");
        return out;
    }

    /// @notice The generators, https://eips.ethereum.org/EIPS/eip-2537
    bytes internal constant G1 = hex"0000000000000000000000000000000017f1d3a73197d7942695638c4fa9ac0fc3688c4f9774b905a14e3a3f171bac586c55e83ff97a1aeffb3af00adb22c6bb"
        hex"0000000000000000000000000000000008b3f481e3aaa0f1a09e30ed741d8ae4fcf5e095d5d00af600db18cb2c04b3edd03cc744a2888ae40caa232946c5e7e1";
    bytes internal constant G2 = hex"00000000000000000000000000000000024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8"
        hex"0000000000000000000000000000000013e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e"
        hex"000000000000000000000000000000000ce5d527727d6e118cc9cdc6da2e351aadfd9baa8cbdd3a76d429a695160d12c923ac9cc3baca289e193548608b82801"
        hex"000000000000000000000000000000000606c4a02ea734cc32acd2b02bc28b99cb3e287e85a763af267492ab572e99ab3f370d275cec1da1aaa9075ff05f79be";
}
