import tseslint from 'typescript-eslint';

export default tseslint.config(...tseslint.configs.recommended, {
  files: ['src/**/*.ts', 'tests/**/*.ts'],
  rules: {
    complexity: ['error', 14],
    eqeqeq: ['error', 'always', { null: 'ignore' }],
    'max-len': ['error', { code: 120, ignoreRegExpLiterals: true, ignoreStrings: true }],
    'max-lines': ['error', 400],
    'max-lines-per-function': ['error', 60],
    'no-console': ['error', { allow: ['error'] }],
    'prefer-const': 'error'
  }
});
